// Which events reach the app, and what becomes of those that cannot be delivered.

param systemTopicName string
param functionAppName string
param functionName string
param uploadContainerName string
param deadLetterAccountName string
param deadLetterContainerName string
param workspaceId string

resource functionApp 'Microsoft.Web/sites@2024-11-01' existing = {
  name: functionAppName
}

resource deadLetterAccount 'Microsoft.Storage/storageAccounts@2025-01-01' existing = {
  name: deadLetterAccountName
}

resource topic 'Microsoft.EventGrid/systemTopics@2025-02-15' existing = {
  name: systemTopicName
}

// Microsoft.Web/sites/host has no Bicep type, hence the function form.
var blobsExtensionKey = listKeys('${functionApp.id}/host/default', '2024-11-01').systemKeys.blobs_extension

resource uploads 'Microsoft.EventGrid/systemTopics/eventSubscriptions@2025-02-15' = {
  parent: topic
  name: 'modzy-relay-uploads'
  properties: {
    destination: {
      endpointType: 'WebHook'
      properties: {
        endpointUrl: 'https://${functionApp.properties.defaultHostName}/runtime/webhooks/blobs?functionName=Host.Functions.${functionName}&code=${blobsExtensionKey}'
      }
    }
    // The form that the blob extension reads.
    eventDeliverySchema: 'EventGridSchema'
    filter: {
      includedEventTypes: ['Microsoft.Storage.BlobCreated']
      // The extension checks neither type nor container. The end of the prefix keeps containers
      // out whose names begin like this one.
      subjectBeginsWith: '/blobServices/default/containers/${uploadContainerName}/blobs/'
      advancedFilters: [
        {
          // The calls that finish a file; others announce files that are still being written.
          operatorType: 'StringIn'
          key: 'data.api'
          values: ['PutBlob', 'PutBlockList', 'CopyBlob', 'FlushWithClose', 'SftpCommit']
        }
      ]
    }
    // The most that Event Grid offers; what is lost after that, the sweep finds.
    retryPolicy: {
      maxDeliveryAttempts: 30
      eventTimeToLiveInMinutes: 1440
    }
    deadLetterWithResourceIdentity: {
      identity: {
        type: 'SystemAssigned'
      }
      deadLetterDestination: {
        endpointType: 'StorageBlob'
        properties: {
          resourceId: deadLetterAccount.id
          blobContainerName: deadLetterContainerName
        }
      }
    }
  }
}

// The alert on dead letters reads these.
resource topicMetrics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'modzy-relay-metrics'
  scope: topic
  properties: {
    workspaceId: workspaceId
    metrics: [
      {
        category: 'AllMetrics'
        enabled: true
      }
    ]
  }
}
